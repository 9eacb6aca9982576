"""What to make: the planner decides the condition of every row of every slot."""

from lightning_diffaug.conditions.planner import Planner, QuotaPlanner, take

__all__ = ["Planner", "QuotaPlanner", "take"]
