"""`tars-rewards models`: the families that are known, and whether this transformers has their classes."""

import dataclasses
import json

from tars_rewards.speech import families


def test_families_and_their_classes(call, monkeypatch):
    import transformers

    unknown = dataclasses.replace(families.QWEN2_AUDIO, name="Fictional", checkpoint_type="f", model_class="Fictional")
    monkeypatch.setattr(families, "_REGISTERED", dict(families._REGISTERED))
    families.register_family(unknown)
    code, out, err = call("models", "--format", "json")
    assert (code, err) == (0, "")
    rows = {row["family"]: row for row in json.loads(out)["families"]}
    assert list(rows) == [each.name for each in families.known_families()]
    assert {row["model_class"]: row["in_transformers"] for row in rows.values()} == {
        each.model_class: hasattr(transformers, each.model_class) for each in families.known_families()
    }
    assert rows["Qwen2-Audio"]["trainable"]
    assert rows["Qwen2-Audio"]["in_transformers"]
    assert not rows["Fictional"]["in_transformers"]


def test_as_a_table(call):
    code, out, _ = call("models")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for family in families.known_families():
        assert family.checkpoint_type in out
