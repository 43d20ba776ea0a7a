"""Words that the scorer's tests share."""

RIGHT = "<think>2+2</think><answer>The answer is 4.</answer>"
SYSTEM = "You are a helpful assistant."
