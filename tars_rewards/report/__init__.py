"""One self-contained page of what was measured: `write_report` (in ``write``).

===============  =====================================================================================================
``collect``      directories and files given, each recognised by what is in it; ``evaluations``, ``drifts``,
                 ``trainings`` and ``comparisons`` read them into ``records``
``charts``       what is drawn, as data; ``drift_charts`` and ``training_charts``; ``published`` figures beside it
``plots``        a chart as SVG (light and dark), PNG and CSV
``completions``  what was said to the same questions, side by side, with ``clips`` to listen to
``tables``       figures as text; ``drift_tables``
``page``         the HTML page around it all
===============  =====================================================================================================
"""
