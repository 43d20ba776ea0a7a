def pytest_collection_modifyitems(items):
    """The real training runs first: with two workers (``-n 2 --dist loadfile``) the other files run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("verl") is None)
