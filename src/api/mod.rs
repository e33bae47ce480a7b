//! Custom resource types (`discovery.beyondtheclouds.io/v1alpha1`) and nothing else.
