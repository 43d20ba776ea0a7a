#!/usr/bin/env bash
# TARS on Qwen2.5-Omni-7B with the paper's hyper-parameters (arXiv 2601.05543, section 4.1), one node with 8 GPUs: 4 train, 4
# generate. Not run by us: there was no such node. One thing differs from the paper: the decoder is trained whole, since
# OpenRLHF cannot push a LoRA policy to vLLM; hence the smaller learning rate.
#   examples/openrlhf/qwen2_5_omni_7b_8gpu.sh train.parquet test.parquet [more flags]
set -euo pipefail
train=$1 test=$2
shift 2

python -m tars_rewards.openrlhf \
    --actor.model_name_or_path Qwen/Qwen2.5-Omni-7B \
    --actor.freeze_visual_encoder \
    --actor.gradient_checkpointing_enable \
    --actor.num_nodes 1 --actor.num_gpus_per_node 4 \
    --actor.adam.lr 1e-6 \
    --actor.eps_clip_low_high 0.2 0.28 \
    --actor.loss_agg_mode token-mean \
    --vllm.num_engines 4 --vllm.tensor_parallel_size 1 --vllm.gpu_memory_utilization 0.8 \
    --ds.zero_stage 2 --ds.param_dtype bf16 --ds.attn_implementation flash_attention_2 \
    --data.prompt_dataset "$train" --data.input_key prompt --data.label_key answer --data.apply_chat_template \
    --data.max_len 3072 --rollout.max_new_tokens 1024 --rollout.temperature 1.0 \
    --rollout.n_samples_per_prompt 4 --rollout.batch_size 16 --rollout.micro_batch_size 4 \
    --train.batch_size 64 --train.micro_batch_size 2 --train.num_episodes 3 \
    --algo.advantage.estimator dr_grpo --algo.kl.init_coef 0 \
    --eval.dataset "$test" --eval.steps 50 --eval.temperature 0 --eval.n_samples_per_prompt 1 \
    --ckpt.save_steps 100 --ckpt.save_hf --ckpt.output_dir runs/omni \
    --logger.tensorboard_dir runs/omni/tensorboard \
    --tars.alpha 1.0 --tars.beta 1.0 --tars.format_weight 0.5 --tars.layers all \
    --tars.embedder Qwen/Qwen3-Embedding-0.6B --tars.embedder_device cuda:0 \
    --tars.text_backbone_accuracy 0.777 \
    "$@"
