"""The tiny Speech LLM: encoder, checkpoint, generation, evaluation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch


def test_the_audio_tower_equals_whispers_encoder(loaded, questions):
    from inference import hear
    from speech import Speaker, speak
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    from whisper_encoder import FFN, HEADS, LAYERS, MELS, WIDTH, whisper_state_dict

    thinker, processor = loaded
    text = questions.generate("test", 1, 0)[0].text
    clip = speak(text, Speaker("en-us", 210, 50, 25.0, 1))
    features = processor.feature_extractor(clip, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    frames = int(features["attention_mask"].sum()) // 4 * 4
    mel = features["input_features"][..., :frames]

    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN,
        num_mel_bins=MELS,
        max_source_positions=frames // 2,
    )
    whisper = WhisperEncoder(config).eval()
    missing, unexpected = whisper.load_state_dict(whisper_state_dict(), strict=False)
    assert (missing, unexpected) == (["embed_positions.weight"], [])
    before_norm = []
    whisper.layer_norm.register_forward_pre_hook(lambda _module, inputs: before_norm.append(inputs[0]))
    with torch.no_grad():
        whisper(mel)
        pooled = before_norm[0][0].unflatten(0, (-1, 2)).mean(1)
        expected = whisper.layer_norm(pooled)

    before_projector = []
    hook = thinker.audio_tower.proj.register_forward_pre_hook(lambda _module, i: before_projector.append(i[0]))
    with torch.no_grad():
        thinker.audio_tower(mel[0], feature_lens=torch.tensor([frames]))
    hook.remove()
    torch.testing.assert_close(before_projector[0], expected, atol=1e-4, rtol=0)
    assert hear(thinker, processor, [clip])[0].shape == ((int(features["attention_mask"].sum()) + 1) // 2 // 2, WIDTH)


def test_a_changed_encoder_file_is_refused(tmp_path, monkeypatch):
    import whisper_encoder

    monkeypatch.setattr(whisper_encoder, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="sha256"):
        whisper_encoder.package_file()
    other = tmp_path / "model.bin"
    other.write_bytes(b"\x07\0\0\0" + bytes(64))
    with pytest.raises(ValueError, match="version 6"):
        whisper_encoder.read_ctranslate2(other)


# --- model -------------------------------------------------------------------------------------------------------


def test_the_base_model_loads_as_a_qwen_omni_checkpoint(base_model):
    from safetensors import safe_open
    from transformers import AutoConfig, Qwen2_5OmniThinkerForConditionalGeneration

    _, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(base_model, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    with safe_open(base_model / "model.safetensors", "pt") as weights:
        assert all(name.startswith("thinker.") for name in weights.keys())  # noqa: SIM118
    assert AutoConfig.from_pretrained(base_model).model_type == "qwen2_5_omni"


def test_the_committed_part_is_small_and_complete(loaded):
    import model

    thinker, _ = loaded
    trained = model.trained_parameters(thinker)
    assert 1.0e6 < sum(p.numel() for p in trained.values()) < 1.5e6
    assert (model.COMMITTED / model.TRAINED_FILE).stat().st_size < 6e6


def test_an_incomplete_trained_part_is_refused(loaded, tmp_path):
    import model
    from safetensors.torch import load_file, save_file

    state = load_file(model.COMMITTED / model.TRAINED_FILE)
    state.pop("lm_head.weight")
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        model.load_trained(loaded[0], tmp_path / "part.safetensors")


def test_the_format_survives_decoders_that_skip_special_tokens(loaded, questions):
    tokenizer = loaded[1].tokenizer
    for q in questions.generate("test", 40, 0):
        ids = tokenizer(q.completion).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == q.completion
        assert 15 <= len(ids) <= 50


def test_twenty_five_audio_tokens_a_second(loaded):
    from inference import prompt_text

    processor = loaded[1]
    placeholder = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    batch = processor(
        text=[prompt_text(processor, None)], audio=[np.zeros(16_000 * 8, np.float32)], return_tensors="pt"
    )
    assert int((batch["input_ids"] == placeholder).sum()) == 200
    assert batch["input_features"].shape[-1] == 1200


def test_generation_with_clips_encoded_once_equals_the_stock_path(loaded, data):
    import soundfile
    from inference import embed, generate, hear, prompt_text

    thinker, processor = loaded
    table = pd.read_parquet(data / "test.parquet")
    clips = [soundfile.read(row[0], dtype="float32")[0] for row in table["audios"][::2]][:4]
    prompt = prompt_text(processor, None)
    heard = hear(thinker, processor, clips, batch_size=3)
    ours = generate(thinker, processor, [embed(thinker, processor, prompt, h) for h in heard], max_new_tokens=12)
    for clip, tokens in zip(clips, ours.tokens, strict=True):
        inputs = processor(text=[prompt], audio=[clip], return_tensors="pt")
        stock = thinker.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert stock[: len(tokens)].tolist() == tokens


def test_pooled_states_are_means_over_the_completion(loaded, questions):
    from evaluate import pooled_states
    from inference import embed, prompt_text

    thinker, processor = loaded
    made = questions.generate("test", 3, 0)
    prompts = [embed(thinker, processor, prompt_text(processor, q.text)).detach() for q in made]
    completions = [processor.tokenizer(q.completion).input_ids for q in made]
    pooled = pooled_states(thinker, prompts, completions)
    for q, completion, states in zip(made, completions, pooled, strict=True):
        ids = torch.tensor([[*processor.tokenizer(prompt_text(processor, q.text)).input_ids, *completion]])
        with torch.no_grad():
            hidden = thinker(input_ids=ids, output_hidden_states=True).hidden_states
        # The last of Hugging Face's states is behind the final norm, a hook's is before it.
        for layer in range(len(states) - 1):
            torch.testing.assert_close(
                states[layer], hidden[layer + 1][0, -len(completion) :].mean(0), atol=1e-5, rtol=1e-5
            )


def test_word_errors_are_counted_as_edits():
    from evaluate import edit_distance

    assert edit_distance(["a", "b", "c", "d"], ["a", "x", "c"]) == 2
    assert edit_distance([], ["a", "b"]) == 2
    assert edit_distance(["a", "b"], ["a", "b"]) == 0


def test_the_evaluation_reports_every_number(base_model, data):
    from evaluate import evaluate

    result = evaluate(base_model, data, split="test", limit=4, sampled=2, transcribed=2, seed=0)
    assert result["questions"] == 4
    assert 0 <= result["speech_accuracy"] <= 1
    assert result["gap"] == pytest.approx(result["text_accuracy"] - result["speech_accuracy"])
    assert result["word_accuracy"] <= 1
    assert 0 <= result["cascade_accuracy"] <= 1
    if result["layer_cosine_pairs"]:
        assert len(result["layer_cosine"]) == 4
        assert all(-1 <= value <= 1 for value in result["layer_cosine"])


def test_who_hears_every_word_answers_the_transcript_as_the_question(base_model, data, monkeypatch):
    import evaluate
    from model import load

    thinker, processor = load(base_model)
    pairs = evaluate.read_pairs(thinker, processor, data, "test", 12)
    answered = {name: evaluate.generate(thinker, processor, prompts) for name, prompts in pairs.prompts.items()}
    words = [extra["question"] for extra in pairs.table["extra_info"]]

    def perfect(*args, _stock=evaluate.generate, max_new_tokens=64, **settings):
        done = _stock(*args, **settings)
        return replace(done, text=words) if max_new_tokens == 96 else done

    monkeypatch.setattr(evaluate, "generate", perfect)
    found = evaluate.transcription(thinker, processor, pairs, 12)
    assert found["word_accuracy"] == 1
    assert found["cascade_accuracy"] == evaluate.accuracy(pairs, answered)["text_accuracy"]


def test_an_untrained_decoder_looks_for_like_words_and_copies_them(loaded):
    import model

    thinker = model.new_thinker(loaded[1].tokenizer)
    assert torch.equal(thinker.lm_head.weight, thinker.model.embed_tokens.weight)
    assert thinker.lm_head.weight is not thinker.model.embed_tokens.weight

    def alike(one, other):
        return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))

    for layer in thinker.model.layers:
        attention = layer.self_attn
        assert alike(attention.q_proj.weight, attention.k_proj.weight) > 0.3
        assert alike(attention.v_proj.weight, attention.o_proj.weight.T) > 0.3
        assert abs(alike(attention.q_proj.weight, attention.v_proj.weight)) < 0.1
