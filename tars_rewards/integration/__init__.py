"""What the framework adapters share beside the reward; speech models have a package of their own.

=======================  ================================================================================
``options``              settings that every adapter has besides those of the reward
``patching``             changes to objects of a framework: after their import, checked, never in silence
``pairs``                the two rows of a question
``rollout_kl``           guard: the rollout engine and the actor agree about what was sampled
``embedding_batcher``    embeddings of completions that finish one by one
``completion_embedder``  the same with what travels with a completion, and with what a failure does
``run_log``              what a training leaves for a report, in files that each are a ``step_file``
``vllm_plugin``          entry point of vLLM's processes
=======================  ================================================================================
"""
