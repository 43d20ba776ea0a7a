"""TARS in OpenRLHF's Ray training, without a fork: classes of the stock program are replaced by ones derived from them.

==============  ==================================================================================
``cli``         ``python -m tars_rewards.openrlhf``: the stock program with ``--tars.*`` flags
``flags``       those flags, from the fields of the settings
``settings``    what of OpenRLHF's arguments cannot work, and what the user need not set
``stock``       tested versions, and the classes behind Ray's actors
``label``       what travels with a prompt: the question, the modality, the user's own label
``dataset``     a question's two prompts, always together
``samples``     completions in the order of questions, modalities and samples
``executor``    one completion: prompt and audio to vLLM, base reward and embedding back
``engine``      vLLM's Ray actor with that executor
``policy``      policy and reference actors: pooled states, speech models, published checkpoints
``experience``  the reward, on the whole batch
``trainer``     puts all that in place in the trainer's process; logging
``evaluation``  accuracy in both modalities, gap, recovery rate
``cpu``         try it without a GPU
==============  ==================================================================================
"""
