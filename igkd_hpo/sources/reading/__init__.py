"""What several sources share: reading images item by item, and downloading as a whole or not at all."""
