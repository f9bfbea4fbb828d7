"""Networks whose layers come from partial differential equations, and how to train them."""

from pdenets.architectures import catalogue as catalogue
