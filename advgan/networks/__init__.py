"""The networks: generator, discriminator and the classifiers under attack."""
