"""Models for other programs: `onnx.py` writes and checks the folder, `graph.py` the graph; `static.py` writes
a table of words and their vectors.
"""
