"""Pages for analysts; they read finished results and never load TensorFlow."""
