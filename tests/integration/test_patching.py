import inspect
import sys

import numpy as np
import pytest

from tars_rewards.errors import AdapterError
from tars_rewards.integration import patching

FRAMEWORK = patching.TestedFramework("numpy", versions=("0.9.1",), series="0.9.")


@pytest.fixture
def target(tmp_path, monkeypatch):
    """A module that can be imported and has not been; its name."""
    (tmp_path / "patched_target.py").write_text("VALUE = 1\n\ndef double(x, *args):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(patching, "_problems", [])
    yield "patched_target"
    sys.modules.pop("patched_target", None)
    patching._finder.patches.pop("patched_target", None)


def test_patch_runs_after_a_later_import_and_before_the_importer_sees_the_module(target):
    seen = []
    patching.after_import(target, lambda module: seen.append(module.VALUE))
    patching.after_import(target, lambda module: setattr(module, "VALUE", 2))
    assert seen == []
    import patched_target

    assert seen == [1]
    assert patched_target.VALUE == 2


def test_patch_of_an_imported_module_runs_at_once(target):
    import patched_target

    patching.after_import(target, lambda module: setattr(module, "VALUE", 3))
    assert patched_target.VALUE == 3


def test_patches_of_one_module_compose_in_order(target):
    for step in (lambda value: value + 1, lambda value: value * 10):

        def patch(module, step=step):
            module.VALUE = step(module.VALUE)

        patching.after_import(target, patch)
    import patched_target

    assert patched_target.VALUE == 20


def test_patched_module_keeps_its_loader_and_source(target):
    patching.after_import(target, lambda module: None)
    import patched_target

    assert inspect.getsource(patched_target.double).startswith("def double")
    assert type(patched_target.__spec__.loader).__name__ == "SourceFileLoader"


def test_reload_is_patched_again(target):
    import importlib

    patching.after_import(target, lambda module: setattr(module, "VALUE", module.VALUE + 1))
    import patched_target

    assert importlib.reload(patched_target).VALUE == 2


def test_a_patch_that_does_not_fit_is_left_out_aloud_and_raises_on_use(target, capsys, monkeypatch):
    def misfit(module):
        patching.check_signature(module.double, ["x", "y"], "patched_target.double")
        module.VALUE = 5

    patching.after_import(target, misfit)
    import patched_target

    assert patched_target.VALUE == 1
    assert "patched_target.double to take (x, y), it takes (x, args)" in capsys.readouterr().err
    monkeypatch.setattr(patching, "installed_version", lambda _: "0.9.1")
    with pytest.raises(AdapterError, match=r"numpy 0\.9\.1 differs from the tested 0\.9\.1: .*double"):
        patching.require_patches(FRAMEWORK)


def test_other_errors_of_a_patch_are_not_hidden(target):
    patching.after_import(target, lambda module: module.missing)
    with pytest.raises(AttributeError, match="missing"):
        import patched_target  # noqa: F401


def test_require_patches_passes_on_the_tested_version(target, monkeypatch):
    monkeypatch.setattr(patching, "installed_version", lambda _: "0.9.1")
    patching.require_patches(FRAMEWORK)


@pytest.mark.parametrize("version", ["0.8.0", "1.0.0", "none"])
def test_require_patches_names_the_tested_version(target, monkeypatch, version):
    monkeypatch.setattr(patching, "installed_version", lambda _: version)
    with pytest.raises(AdapterError, match=rf"tested with numpy 0\.9\.1, found {version}; install 'numpy==0\.9\.1'"):
        patching.require_patches(FRAMEWORK)


def test_installed_version_of_what_is_and_is_not_there():
    assert patching.installed_version("numpy") == np.__version__
    assert patching.installed_version("tars-no-such-distribution") == "none"


def test_require_attribute_names_owner_and_attribute():
    assert patching.require_attribute(sys, "path", "sys") is sys.path
    with pytest.raises(AdapterError, match="expected sys to have gone, it has not"):
        patching.require_attribute(sys, "gone", "sys")


def test_replace_takes_the_place_of_what_is_there_and_of_nothing_else(target):
    import patched_target

    patching.replace(patched_target, "double", lambda x, *args: 3 * x, "x args")
    assert patched_target.double(2) == 6
    patching.replace(patched_target, "VALUE", 4)
    assert patched_target.VALUE == 4
    with pytest.raises(AdapterError, match=r"expected patched_target\.double to take \(y\), it takes \(x, args\)"):
        patching.replace(patched_target, "double", lambda y: y, "y")
    with pytest.raises(AdapterError, match="expected patched_target to have triple, it has not"):
        patching.replace(patched_target, "triple", 5)
