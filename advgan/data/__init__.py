"""Images and labels: the MNIST digits that ship with the package, or arrays of the user's own."""
