"""The Gaussian conditional expectation in paper form."""

import numpy as np


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
