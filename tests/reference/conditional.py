"""Shapley values by enumeration, and the Gaussian conditional expectation, both in paper form."""

import itertools
import math

import numpy as np


def shapley_by_enumeration(value, players):
    """phi_i = sum over S without i of |S|! (P-|S|-1)! / P! (v(S+i) - v(S)), `value` of a set of players."""
    phi = np.zeros(players)
    for i in range(players):
        others = [j for j in range(players) if j != i]
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for coalition in itertools.combinations(others, size):
                phi[i] += weight * (value({*coalition, i}) - value(set(coalition)))
    return phi


def conditional_mean(mean, covariance, x, known):
    """E[x | x_S] = x on S; mu_A + Sigma_AS Sigma_SS^-1 (x_S - mu_S) elsewhere."""
    s = sorted(known)
    a = [j for j in range(len(x)) if j not in known]
    filled = np.array(x, dtype=float)
    if a:
        gain = covariance[np.ix_(a, s)] @ np.linalg.inv(covariance[np.ix_(s, s)]) if s else np.zeros((len(a), 0))
        filled[a] = mean[a] + gain @ (filled[s] - mean[s])
    return filled


def conditional_covariance(covariance, known):
    """Sigma_AA - Sigma_AS Sigma_SS^-1 Sigma_SA, of the features that are not known, in order."""
    s = sorted(known)
    a = [j for j in range(len(covariance)) if j not in known]
    gain = covariance[np.ix_(a, s)] @ np.linalg.inv(covariance[np.ix_(s, s)]) if s else np.zeros((len(a), 0))
    return covariance[np.ix_(a, a)] - gain @ covariance[np.ix_(s, a)]
