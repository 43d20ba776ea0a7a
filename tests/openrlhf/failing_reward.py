"""A user's reward function with a mistake in it."""


def reward_func(queries, prompts, labels):
    raise KeyError(f"no rubric for {labels[0]['ground_truth']}")
