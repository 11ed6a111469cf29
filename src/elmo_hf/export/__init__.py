"""Models for other runtimes: `onnx.py` writes and checks the folder, `graph.py` the graph."""
