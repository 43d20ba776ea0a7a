"""Scoring without an RL framework: questions with completions in, rewards out.

===============  =====================================================================================
``question``     a question and its completions: the schema of JSONL, Parquet and HTTP
``scorer``       `Scorer`: prompts, forward passes and rewards of questions, as a stream
``preparation``  from a question to prompts and tokens; ``work`` is what comes of it
``forward``      log-probabilities and pooled states of completions, in batches that fit the memory
``generation``   completions of questions that have none, as ``sampling`` says
``rows``         results as flat rows, one a completion
``files``        whole files of questions: ``source`` reads and checks, ``sink`` writes and resumes by a
                 ``journal``, ``tables`` knows JSONL and Parquet, ``tasks`` what is to be done
===============  =====================================================================================
"""
