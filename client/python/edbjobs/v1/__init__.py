"""Generated stubs of the contract in protos/edbjobs/v1; made by `make proto`."""
