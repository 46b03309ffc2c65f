"""Learning from the journal: replay, soft Q-learning on the support, policy extraction, checkpoint, ONNX export."""
