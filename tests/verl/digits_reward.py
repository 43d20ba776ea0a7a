"""A reward for runs without TARS: how many digits a completion has. Random models differ in that."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {
        "score": min(sum(character.isdigit() for character in solution_str), 10) / 10,
        "acc": float(ground_truth in solution_str),
    }
