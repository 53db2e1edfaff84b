"""AMC: a DDPG agent that decides layer by layer how much to prune (He et al. 2018, arXiv 1802.03494)."""
