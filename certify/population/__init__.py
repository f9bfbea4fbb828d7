"""Statements about a population: one number, one proof, and no input certified by itself.

``lower_bound`` and ``upper_bound``: the share of inputs on which the smoothed classifier is right and
stays right within a radius. ``one_pass_accuracy`` and ``shifted``: how often the classifier that answers
from one noisy copy is right under every attack of a size, or after a shift of the population.
"""

from certify.population.bounds import lower_bound, upper_bound
from certify.population.one_pass import attacked, one_pass_accuracy, shifted

__all__ = ["attacked", "lower_bound", "one_pass_accuracy", "shifted", "upper_bound"]
