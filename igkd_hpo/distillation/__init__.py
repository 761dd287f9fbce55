"""The numeric core: networks, loss, views, overlay, attribution maps and the training loop."""
