import pytest


def pytest_collection_modifyitems(items):
    """Order for two workers (``-n 2 --dist loadgroup``): the real training runs first, the other files beside them.

    The training runs are one group, so one after another: verl's sockets have fixed names.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("verl" if item.get_closest_marker("verl") else item.path.name))
    items.sort(key=lambda item: item.get_closest_marker("verl") is None)
