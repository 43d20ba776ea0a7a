"""Speech LLMs in RL frameworks: what every adapter needs beside the reward.

=================  =================================================================================
``families``       what differs between the model families, one record each
``checkpoint``     whose a checkpoint is, and how a trained one is published
``waveform``       a clip, in whatever form a dataset has it, as samples
``processors``     the Hugging Face processors: samples to features, placeholders, positions
``policy``         a loaded model made fit for RL: frozen towers, tokens that are never sampled
``encoder_cache``  a clip is encoded once, not once per completion and pass
``vllm_models``    vLLM's models take pushed weights by the names that the trainer has
=================  =================================================================================
"""
