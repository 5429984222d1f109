"""Methods that FlexiAct is compared with, one module each; all follow the protocol of `flexiact.task`."""
