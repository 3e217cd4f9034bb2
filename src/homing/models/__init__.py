"""timm backbones: weights, preprocessing, trainable parts, and the scan of features."""
