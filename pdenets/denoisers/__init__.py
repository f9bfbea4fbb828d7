"""Denoisers to put in front of a classifier, from none to a trained network; see ``certify.denoised``.

One file each, one line in the entry-point group ``certify.denoisers``. A denoiser is a module from
(batch, *shape) to (batch, *shape); if its ``forward`` has a parameter ``sigma`` it is told the noise
level.
"""

from pdenets.denoisers.catalogue import denoiser_catalogue as denoiser_catalogue
