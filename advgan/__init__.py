"""AdvGAN: adversarial images in one forward pass (Xiao et al., IJCAI 2018)."""

__version__ = "0.1.0"
