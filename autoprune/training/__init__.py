"""Training that makes pruning easy, and pruning in the course of training: schedules, slimming, lottery tickets."""
