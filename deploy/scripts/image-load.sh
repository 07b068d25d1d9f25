# Sourced: sets the array `image_load`, the command that takes image tars to the nodes of the cluster in use. IMAGE_LOAD
# names it; unset, the name of the current context tells which tool made the cluster. Expects the array `kubectl`.
# shellcheck shell=bash disable=SC2154

read -ra image_load <<<"${IMAGE_LOAD:-}"
if ((${#image_load[@]} == 0)); then
  context=$("${kubectl[@]}" config current-context 2>/dev/null) || context=
  case $context in
    k3d-*) image_load=(k3d image import --cluster "${context#k3d-}") ;;
    kind-*) image_load=(kind load image-archive --name "${context#kind-}") ;;
    minikube) image_load=(minikube image load) ;;
    docker-desktop) image_load=(true) ;; # runs the images of its own Docker daemon
    *) image_load=(kind load image-archive) ;;
  esac
fi
