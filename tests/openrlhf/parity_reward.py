"""A user's reward function: random models never give a right answer, so an even number of characters is one."""


def reward_func(queries, prompts, labels):
    completions = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
    rewards = [1.0 if len(completion) % 2 == 0 else 0.25 for completion in completions]
    return {
        "rewards": rewards[0],
        "scores": float(rewards[0] == 1.0),
        "extra_logs": {"characters": len(completions[0])},
    }
