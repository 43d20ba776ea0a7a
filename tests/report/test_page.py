"""The page as text: complete in itself, safe, in order, and true."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import report_runs as runs

from tars_rewards.report.clips import ClipBox
from tars_rewards.report.collect import collect
from tars_rewards.report.completions import _fairly, evaluation_sets, shortened
from tars_rewards.report.published import ABLATION, MODELS
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.write import write_report

VOID = {"meta", "link", "img", "source", "br", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """Elements of a page, and the text of some."""

    elements: list = field(default_factory=list)
    texts: list = field(default_factory=list)
    open: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags):
        return [text for tag, text in self.texts if not tags or tag in tags]


def parse(files):
    page = Page()
    page.feed(files.page.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def page(everything):
    return parse(everything)


@pytest.fixture(scope="module")
def lone_page(alone):
    return parse(alone)


def test_every_part_is_there(page):
    assert page.text("h2") == [
        "Accuracy and the modality gap",
        "Compared on the same questions",
        "Gap by category",
        "Noise and speed",
        "Representational drift: drift",
        "Training: grpo",
        "Completions side by side",
        "Published figures",
        "Settings and versions",
    ]


def test_parts_without_data_are_left_out(lone_page):
    assert lone_page.text("h2") == [
        "Accuracy and the modality gap",
        "Gap by category",
        "Completions side by side",
        "Published figures",
        "Settings and versions",
    ]
    links = [link["href"] for link in lone_page.all("a") if link["href"].startswith("#")]
    ids = {attributes["id"] for _, attributes in lone_page.elements if "id" in attributes}
    assert {link[1:] for link in links} <= ids


def test_nothing_is_fetched_and_nothing_is_run(page):
    assert not page.all("script")
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "srcset", "href", "action", "poster", "data"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes[name][:60])
    assert not page.all("iframe") + page.all("object") + page.all("form")


def test_the_policy_allows_this_style_and_no_network(everything, page):
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", everything.page.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_what_a_model_says_is_text(page):
    assert any(runs.INJECTION in text for text in page.text("p"))  # shown as it is
    assert len(page.all("img")) == len(page.all("figure"))  # and no element of it came about


def test_headings_are_in_order(page, lone_page):
    for each in (page, lone_page):
        levels = [int(tag[1]) for tag, _ in each.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_and_tables_can_be_read_by_those_who_do_not_see_them(page):
    for picture in page.all("img"):
        assert len(picture["alt"]) > 40
        assert int(picture["width"]) > 300
    with_caption = [attributes for tag, attributes in page.elements if tag == "table" and attributes.get("role")]
    assert len(page.all("caption")) == len(with_caption) > 5
    assert all(cell.get("scope") for cell in page.all("th"))
    assert all(audio["aria-label"] for audio in page.all("audio"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_figures_in_the_headline_are_those_of_the_run(inputs, lone_page):
    [run] = collect([inputs.before]).evaluations
    text = " ".join(lone_page.text())
    assert f"{100 * run.gap.value:.1f}" in text
    for low, high in ((run.accuracy["speech"].low, run.accuracy["speech"].high), (run.gap.low, run.gap.high)):
        assert f"{100 * low:.1f} to {100 * high:.1f}" in text
    assert f"of {100 * run.denominator:.1f}, own text" in text
    assert "120" in lone_page.text("span")  # questions


def test_published_figures_are_marked(lone_page):
    rows = [
        attributes for tag, attributes in lone_page.elements if tag == "tr" and attributes.get("class") == "published"
    ]
    assert len(rows) == 2 * len(MODELS) + len(ABLATION)  # beside the run, and at the end
    assert lone_page.text("span").count("published, arXiv 2601.05543") == len(MODELS)
    notes = " ".join(lone_page.text("p"))
    assert "not measured here" in notes
    assert "120 of the 3074 questions of mmsu, and is not comparable" in notes


def test_nothing_published_where_it_is_not_asked_for(inputs, tmp_path):
    page = parse(write_report([inputs.before], tmp_path / "r.html", ReportSettings(questions=0, published=False)))
    assert "ublished" not in " ".join(page.text("p", "h2", "h3", "td", "span", "summary", "caption"))


def test_no_comparison_with_another_benchmark(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=8, clips=0, benchmark="mine.jsonl", categories=False)
    page = parse(write_report([run], tmp_path / "r.html"))
    notes = " ".join(page.text("p"))
    assert "cannot be compared with them" in notes
    assert "not measured here" not in notes
    assert "Gap by category" not in page.text("h2")


def test_what_was_left_out_is_said(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=8, clips=0)
    (run / "results.jsonl.bad.jsonl").write_text("{}\n{}\n")
    page = parse(write_report([run], tmp_path / "r.html"))
    assert "Of r 2 bad rows were left out." in " ".join(page.text("p"))


def test_a_run_in_one_modality(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=12, clips=0, summary=False)
    results = run / "results.jsonl"
    results.write_text("".join(line for line in results.read_text().splitlines(True) if '"text"' in line))
    page = parse(write_report([run], tmp_path / "r.html"))
    assert "In one modality only" in " ".join(page.text("summary"))
    assert "not asked in this modality" in page.text("p")
    assert not [each for tag, each in page.elements if each.get("class") == "key"]  # there is no gap to show


def test_all_settings_and_versions(page):
    text = " ".join(page.text("th", "span", "td"))
    for words in ("versions.torch", "2.9.0", "sampling.temperature", "condition.snr_db", "resampling.resamples",
                  "settings.forced", "final_norm", "clip_megabytes", "arms.after.runs"):  # fmt: skip
        assert words in text, words


def test_drift_along_the_completion_is_in_figures(page):
    assert "Along the completion: its last tenth less its first" in page.text("th")
    assert page.text("span").count("−0.125") == 3


def test_plots_and_their_data_are_beside_the_page(everything, page):
    pictures = sorted(path.stem for path in everything.plots.glob("*.png"))
    assert pictures == sorted(path.stem for path in everything.plots.glob("*.csv"))
    assert len(pictures) == everything.figures == len(page.all("img")) > 15
    for link in (link for link in page.all("a") if "download" in link):
        content = base64.b64decode(link["href"].partition(",")[2])
        assert content == (everything.plots / link["download"]).read_bytes()


def test_clips_are_those_of_the_runs_and_the_rest_is_counted(inputs, everything, page):
    clips = [base64.b64decode(audio["src"].partition(",")[2]) for audio in page.all("audio")]
    known = {path.read_bytes() for path in inputs.root.rglob("*.wav")}
    assert len(clips) == everything.clips == 5
    assert set(clips) <= known
    left = page.text("p").count("Clip not in this page: more than 5 clips.")
    assert left > 0
    assert everything.clips_left_out == {"more than 5 clips": left}
    said = f"Clips of the questions shown: 5 in this page. Left out: {left} (more than 5 clips)."
    assert said in " ".join(page.text("p"))


def test_clips_that_cannot_be_embedded(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=6, clips=4)
    (run / "audio" / "000.wav").unlink()
    (run / "audio" / "001.wav").write_bytes(b"no sound")
    runs.clip(run / "audio" / "002.wav", seconds=2.0)
    files = write_report([run], tmp_path / "r.html", ReportSettings(clip_megabytes=0.05))
    assert files.clips == 1
    assert files.clips_left_out == {
        "the file is no longer where it was": 1,
        "not WAV, FLAC, Ogg or MP3": 1,
        "larger than 0.05 MB": 1,
    }
    for reason in files.clips_left_out:
        assert f"Clip not in this page: {reason}." in parse(files).text("p")


def test_completions_are_sorted_by_outcome_and_what_the_gap_is_made_of_comes_first(inputs, lone_page):
    titles = [text for text in lone_page.text("summary") if "right" in text or "wrong" in text]
    assert titles == ["Read right, heard wrong", "Heard right, read wrong", "Both wrong", "Both right"]
    [run] = collect([inputs.before]).evaluations
    verdicts = {}
    for row in run.rows:
        verdicts.setdefault(row.id, {})[row.modality] = row.correct
    gap = sum(each["text"] and not each["speech"] for each in verdicts.values())
    assert any(f"{gap} questions, 1 shown" in text for text in lone_page.text("span"))


@pytest.mark.parametrize(("snr", "sets"), [(None, 1), (5.0, 2)])
def test_runs_with_other_seeds_stand_side_by_side_unless_they_heard_other_noise(tmp_path, snr, sets):
    given = [
        runs.evaluation(tmp_path / f"run{seed}", questions=4, condition={"snr_db": snr, "speed": 1.0, "seed": seed})
        for seed in (0, 1)
    ]
    assert len(evaluation_sets(collect(given).evaluations, ReportSettings(), ClipBox(1, 1.0))) == sets


def test_verdicts_are_said_in_words(page):
    words = page.text("span")
    assert words.count("✓ right") > 3
    assert words.count("✗ wrong") > 3
    assert "no answer found" in words


def test_a_long_completion_loses_its_middle(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=4, clips=0)
    page = parse(write_report([run], tmp_path / "r.html", ReportSettings(completion_characters=100)))
    assert any("characters left out …]" in text for text in page.text("p"))
    assert shortened("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("sizes", "most", "shares"), [([10, 1, 10], 8, [4, 1, 3]), ([1, 1], 8, [1, 1]), ([], 3, []), ([5, 5], 1, [1, 0])]
)
def test_questions_are_shared_out_fairly(sizes, most, shares):
    assert _fairly(sizes, most) == shares
