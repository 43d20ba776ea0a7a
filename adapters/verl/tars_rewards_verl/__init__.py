"""The verl adapter of tars-rewards: what each file is for.

``plugin``           loaded by ``import verl`` in every process; installs the rest where it is needed
``loaded``           whether verl did load it
``dispatch``         makes verl's stock entry point build our trainer when ``reward.custom`` is set
``settings``         refuses what cannot work, fills in what TARS needs in verl's config
``trainer``          mixin for verl's synchronous trainers: pairs, guards, final reward, metrics
``pairs``            shuffling by pair
``batch``            TransferQueue rows to rollouts
``engine``           mixin for verl's FSDP engines: pooled states from the log-prob forward
``reward_manager``   base reward and embedding of one completion, inside verl's reward loop
``guards``           what must hold in every step
``validation``       speech and text accuracy, gap, MRR, own-text ratio
``weight_push``      weight pushes: a deadline, and no socket shared with another run
``lora``             LoRA adapters on their way to vLLM
``worker``           what training workers import (``actor_rollout_ref.model.external_lib``)
``audio``            audio through verl and vLLM
``cpu``              try it without a GPU
"""
