"""Methods FlexiAct is compared with: one module each, all speaking the protocol of `flexiact.task`."""
