"""What to make: the planner decides the condition of every row of every slot."""

from lightning_diffaug.conditions.planner import Planner, QuotaPlanner, take
from lightning_diffaug.conditions.real_guided import RealGuidedPlanner

__all__ = ["Planner", "QuotaPlanner", "RealGuidedPlanner", "take"]
