"""One evaluation for all contenders: same images, metrics and cost accounts; its results."""
