# Staging by Argo CD, with its Secrets from a store of External Secrets.
terraform {
  required_version = ">= 1.9"

  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.38"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
  }
}

provider "kubernetes" {
  config_path    = "~/.kube/config"
  config_context = "staging"
}

provider "helm" {
  kubernetes = {
    config_path    = "~/.kube/config"
    config_context = "staging"
  }
}

module "agentforge" {
  source = "../.."

  environment = "staging"
  database    = { host = "postgres.staging.agentforge.internal" }
  secret_store = {
    name = "agentforge"
    path = "agentforge/staging"
  }
}

output "api_url" {
  description = "Where the cluster reaches the API."
  value       = module.agentforge.api_url
}
