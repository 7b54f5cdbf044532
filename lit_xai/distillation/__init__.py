"""Knowledge distillation: teachers, losses, adapters, and the callbacks that train with them."""
