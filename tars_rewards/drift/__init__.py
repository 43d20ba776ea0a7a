"""How far a model's states and words drift apart when it hears a question instead of reading it.

===============  =====================================================================================================
``run``          `measure_drift`: one model, or one against another; ``settings`` says how
``model_drift``  what is measured of one model, question by question
``states``       states of one completion after both prompts, token by token; ``positions`` along the completion
``measures``     cosine, centred cosine and debiased CKA
``behavior``     what the completions say: answers, steps, tokens, length
``curves``       means over questions with ``intervals``; differences between models
``files``        a directory of results; ``plots`` of them, with ``published`` figures where asked for
===============  =====================================================================================================
"""
