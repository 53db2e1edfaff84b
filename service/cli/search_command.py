"""The command ``search``, whose options are those of a job; other commands take theirs from it."""

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli import policy_options as policy
from autoprune.service.cli import training_options as training


def search(
    ctx: typer.Context,
    model: opt.Model,
    dataset: opt.Data,
    budget: opt.Budget,
    device: opt.Device = None,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    report_dataset: opt.ReportData = None,
    fit_images: opt.FitImages = None,
    search_images: opt.SearchImages = None,
    report_images: opt.ReportImages = None,
    normalization: opt.Normalization = None,
    policies: opt.Policies = ["uniform", "sensitivity", "exact"],  # noqa: B006 - read once by typer
    evaluations: opt.Evaluations = 100,
    warm_start: opt.WarmStart = False,
    continue_from: opt.ContinueFrom = None,
    front_least: opt.FrontLeast = None,
    front_points: opt.FrontPoints = None,
    screening_images: opt.ScreeningImages = None,
    short_term_steps: opt.ShortTermSteps = 0,
    netadapt_rule: opt.NetadaptRule = "official",
    amc_reward: policy.AmcReward = None,
    amc_warmup_episodes: policy.AmcWarmupEpisodes = None,
    amc_parallel_episodes: policy.AmcParallelEpisodes = None,
    amc_fill: policy.AmcFill = None,
    amc_free_episodes: policy.AmcFreeEpisodes = None,
    amc_stop_early: policy.AmcStopEarly = None,
    amc_experience: policy.AmcExperience = False,
    amc_agent: policy.AmcAgent = None,
    amc_tensorboard: policy.AmcTensorboard = False,
    pruningnet_epochs: policy.PruningnetEpochs = None,
    pruningnet_images: policy.PruningnetImages = None,
    pruningnet_from_scratch: policy.PruningnetFromScratch = False,
    pruningnet_audit_plans: policy.PruningnetAuditPlans = None,
    criterion: opt.Criterion = "obs",
    reconstruction: opt.Reconstruction = True,
    refit: opt.Refit = True,
    round_to: opt.RoundTo = 1,
    max_ratio: opt.MaxRatio = 0.9,
    include_residual: opt.IncludeResidual = False,
    seed: opt.Seed = 0,
    precision: opt.Precision = "auto",
    finetune_epochs: training.FinetuneEpochs = 0,
    optimizer: training.Optimizer = "relative-adamw",
    learning_rate: training.LearningRate = 0.003,
    weight_decay: training.WeightDecay = 5e-4,
    momentum: training.Momentum = 0.9,
    batch_size: training.BatchSize = 64,
    label_smoothing: training.LabelSmoothing = 0.0,
    distillation: training.Distillation = 1.0,
    temperature: training.Temperature = 4.0,
    hints: training.Hints = 10.0,
    freeze_batchnorm: training.FreezeBatchnorm = True,
    augment: training.Augment = True,
    flip: training.Flip = True,
    output: opt.Output = None,
    int8: opt.Int8 = False,
    opset: opt.Opset = 18,
    threads: opt.Threads = 1,
    workers: opt.Workers = None,
    cluster: opt.Cluster = None,
    as_json: opt.Json = False,
) -> None:
    """Search how much to prune in every layer, recover the network, export it and certify the budget.

    Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.search import run_search_command

    run_search_command(ctx.params)
