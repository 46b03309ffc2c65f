"""Learning from the journal: replay, soft Q-learning on the support, policy extraction, checkpoint and ONNX export."""
