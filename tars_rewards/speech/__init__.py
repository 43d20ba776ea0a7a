"""Speech LLMs, scored by themselves and in RL frameworks: what is needed beside the reward.

====================  =================================================================================
``family``            what a record of a family says, and how a prompt becomes model inputs
``families``          the families that are known, one record each; ``register_family``
``model``             a loaded model to be scored: prompts, tokens, padded batches, decoder layers
``loading``           weights, processor, device and dtype of such a model
``memo``              in such a model, a clip is encoded once for each prompt
``media``             a clip or an image as the processor takes it
``scored_families``   the records of families that are scored and not trained, and the code that some of them need
``adapters``          LoRA adapters for listening only, on for the rows of a batch that have a clip
``rope``              rotary positions that depend on a row's length and on no other row's
``omni_processors``   the Omni families' processors where torchvision is not installed
``gemma4_processor``  Gemma 4's processor for audio and text, likewise
``checkpoint``        whose a checkpoint is, and how a trained one is published
``waveform``          a clip, in whatever form a dataset has it, as samples
``processors``        the Hugging Face processors: samples to features, placeholders, positions
``policy``            a loaded model made fit for RL: frozen towers, tokens that are never sampled
``encoder_cache``     a clip is encoded once, not once per completion and pass
``vllm_models``       vLLM's models take pushed weights by the names that the trainer has
====================  =================================================================================
"""
