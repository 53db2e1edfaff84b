"""From ratios to a physically smaller network: policy, plan, surgery, and the proof that they agree."""
