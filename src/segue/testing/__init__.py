"""What users test their workflows with, and what segue's own backends are tested with."""
