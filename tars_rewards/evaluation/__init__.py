"""Evidence: what a model answers on speech and on text, with the uncertainty of every figure.

==============  ====================================================================================================
``records``     a run directory: `EvaluationRow`, `RunInfo`, reading and writing them, fingerprints
``outcomes``    a run's answers by question, as arrays, and whether two runs asked the same questions
``statistics``  intervals by bootstrap over questions, exact McNemar test, differences over several runs, Holm's correction
``summary``     what one run says: accuracies, gap, modality recovery rate, own-text ratio
``compare``     what several runs say about each other
``evaluate``    the command: `settings` in, a run directory out; each question is a `task`
``benchmarks``  VoiceBench's mmsu and openbookqa, or any file of questions
``conditions``  noise and speed
``engine…``     what generates: `engine_huggingface` in this process, `engine_endpoint` by HTTP
==============  ====================================================================================================
"""
