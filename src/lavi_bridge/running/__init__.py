"""What any long run needs: a device, seeds, a lock, a state to go on from."""
