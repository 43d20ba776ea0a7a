import re

import torch

LOADED = []


class Tokenizer:
    """A token is a character; pads with 0, on the side it is told."""

    padding_side, pad_token, eos_token, pad_token_id = "right", None, "\0", 0

    def __call__(self, texts, *, return_tensors, padding):
        assert (return_tensors, padding, self.padding_side, self.pad_token) == ("pt", True, "left", "\0")
        width = max(map(len, texts))
        ids = torch.tensor([[0] * (width - len(text)) + [ord(letter) for letter in text] for text in texts])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": ids}

    def batch_decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return ["".join(chr(token) for token in row if token) for row in ids.tolist()]


class Model:
    """Answers with the last single capital letter of the output sentences; to "mute" it says nothing."""

    device = "cpu"

    def __init__(self):
        self.batches = []

    def generate(self, input_ids, attention_mask, *, max_new_tokens, do_sample, pad_token_id):
        prompts = Tokenizer().batch_decode(input_ids * attention_mask, skip_special_tokens=True)
        self.batches.append(prompts)
        replies = [self.reply(re.search(r'Output sentences: "(.*)" Range', prompt, re.DOTALL)[1]) for prompt in prompts]
        new = [[ord(letter) for letter in reply] + [pad_token_id] * (max_new_tokens - len(reply)) for reply in replies]
        return torch.cat([input_ids, torch.tensor(new)], dim=1)

    def reply(self, sentences):
        if "out of memory" in sentences:
            raise RuntimeError("out of memory")
        letters = re.findall(r"\b[A-H]\b", sentences)
        return "" if sentences == "mute" else letters[-1] if letters else "[No valid answer]"


class Extractor:
    def __init__(self, model_name, inference_mode, model_path_or_url, temperature, max_tokens):
        assert inference_mode == "local"
        LOADED.append((model_name, model_path_or_url))
        self.model_name, self.tokenizer, self.model = model_name, Tokenizer(), Model()

    def create_formatted_prompt(self, query):
        if self.model_name not in ("xFinder-qwen1505", "xFinder-llama38it"):
            raise ValueError("not supported")
        return f"<|System|>{query}"

    def _execute_local_inference(self, query):
        raise AssertionError("one prompt at a time")

    def generate_output(self, question, llm_output, standard_answer_range):
        query = f'Question: "{question}" Output sentences: "{llm_output}" Range: {standard_answer_range}'
        try:
            return self._execute_local_inference(query)
        except Exception:  # as the package does
            return "[Error in inference]"
